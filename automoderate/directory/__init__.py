"""Who is who and who may see what: the database, and the session cookie that names a user."""
