"""Every console, pycon and python block of GUIDE.md, and of our own documents, run as a user would."""
