"""Detectors (Presidio, spaCy, Rampart) and the thread pool they run on."""
