"""What the lessons compute: in the plane, where the exact answer is known, and on `postcards`."""
