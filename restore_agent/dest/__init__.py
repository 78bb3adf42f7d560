"""The destination directory DEST. OSError becomes an error of restore-agent here."""
