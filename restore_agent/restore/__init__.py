"""The main job: wait for the restore jobs, download, verify, write the receipt."""
