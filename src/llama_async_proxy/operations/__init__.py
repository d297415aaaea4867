"""What the service can be asked to do. Doors parse, run one operation, render."""
