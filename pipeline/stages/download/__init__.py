"""The stage `download`: URLs become images, in tars of their own. img2dataset fetches them in a child process."""
