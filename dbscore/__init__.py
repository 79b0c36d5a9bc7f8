"""Machine-learning models that live in PostgreSQL and are called from SQL."""
