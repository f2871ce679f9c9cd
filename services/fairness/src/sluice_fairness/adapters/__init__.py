"""What talks to the outside: events in and out, the Faust table, dead letters."""
