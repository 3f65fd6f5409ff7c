"""From files, folders and the Hub to checked splits with token ids."""
