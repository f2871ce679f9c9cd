"""The schema's history. Every step only adds: replicas of two versions run side by side for a while."""
