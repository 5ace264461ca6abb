"""One run of Ansible: the account it comes as, its progress, its errors in words."""
