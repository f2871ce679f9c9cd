"""Everything of the cost service that talks to the outside: the database, the price file, the publisher."""
