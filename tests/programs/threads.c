/* Four threads on futexes: mutex, barrier, condition variable, semaphore, joins; a thread that ends the process. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore;
static long count;
static int turn;
static __thread long own;

static void *worker(void *argument)
{
    long me = (long)argument;
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&lock);
        count++;
        pthread_mutex_unlock(&lock);
        own += me;
    }
    pthread_barrier_wait(&barrier);
    for (int round = 0; round < 5; round++) {
        pthread_mutex_lock(&lock);
        while (turn != me) pthread_cond_wait(&changed, &lock);
        printf("round %d thread %ld own %ld\n", round, me, own);
        turn = (turn + 1) % 4;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    sem_post(&semaphore);
    return (void *)(me * 10);
}

static void *spinner(void *argument)
{
    while (!__atomic_load_n((int *)argument, __ATOMIC_ACQUIRE)) ;
    return NULL;
}

static void *ender(void *argument)
{
    exit(9);
}

int main(void)
{
    pthread_t threads[4];
    pthread_barrier_init(&barrier, NULL, 4);
    sem_init(&semaphore, 0, 0);
    for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, worker, (void *)i);
    long sum = 0;
    for (int i = 0; i < 4; i++) {
        void *result;
        sem_wait(&semaphore);
        pthread_join(threads[i], &result);
        sum += (long)result;
    }
    printf("count %ld sum %ld\n", count, sum);

    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&lock);
    printf("timed out: %d\n", pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT);
    pthread_mutex_unlock(&lock);

    int stop = 0;
    pthread_create(&threads[0], NULL, spinner, &stop);
    usleep(1000);
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    pthread_join(threads[0], NULL);

    fflush(stdout);
    int status;
    if (!fork()) {
        pthread_create(&threads[0], NULL, ender, NULL);
        for (;;) pause();
    }
    wait(&status);
    printf("a thread ended the process: %d\n", WEXITSTATUS(status));
    return 4;
}
