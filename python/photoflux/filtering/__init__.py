"""Takes the images of one class out of a pile of any size; a job can be killed and goes on where it stopped."""
