"""What the hospital's own people see of their site: one page, written here and for here."""
