-- One database a service: no service reads another's store.
CREATE DATABASE cost;
CREATE DATABASE feedback;
