"""Live quality of a model mesh: what requests, verdicts and feedback say, in windows of event time."""
