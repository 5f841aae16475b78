"""`entry64 check`: a regression of scenarios and their sweeps, for people, JUnit and SARIF."""
