#!/bin/bash
# Records what strace shows of the programs here: `bash record.sh`. Needs strace, gcc and its 32-bit libraries.
set -e
cd "$(dirname "$0")"
folder=$(mktemp -d)
for name in files arguments signals processes restarts; do
    for bits in 64 32; do
        flags="-O1 -static -nostdlib -ffreestanding -fno-stack-protector -fno-pic -no-pie -w"
        gcc -m$bits $flags -o "$folder/$name$bits" $name.c
        fork=$([ $name = files ] || [ $name = arguments ] || echo -f)
        (cd "$folder" && { strace $fork -o trace "./$name$bits" || true; }) 2>/dev/null
        { echo "# strace $fork ./$name$bits: $(strace -V | head -1), Linux $(uname -r | cut -d. -f1,2), $(gcc --version | head -1)"
          cat "$folder/trace"; } >"$name$bits.txt"
    done
done
rm -r "$folder"
