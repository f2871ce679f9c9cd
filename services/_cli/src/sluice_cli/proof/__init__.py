"""What the event topics prove: nothing lost, nothing counted twice."""
