"""The paths of the REST interface, one file per resource. A route reads its input, calls one use case, and shows the result."""
