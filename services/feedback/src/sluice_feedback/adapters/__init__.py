"""Everything of the feedback service that talks to the outside: the database, redaction, the publisher."""
