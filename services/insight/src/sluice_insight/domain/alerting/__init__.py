"""When numbers become alerts: rules, conditions, states."""
