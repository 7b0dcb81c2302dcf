"""How a picture was made, written into its file, and read from the files of this and other
programs."""
