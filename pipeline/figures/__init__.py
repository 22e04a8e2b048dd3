"""What people look at: one module per stage, so that a change to one picture reruns one stage."""
