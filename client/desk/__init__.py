"""What the people of a hospital do and see: enrolment, preflight, start, stop, status."""
