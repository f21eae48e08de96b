"""The stage `download`: lists of URLs become images. img2dataset fetches them, in a child process."""
