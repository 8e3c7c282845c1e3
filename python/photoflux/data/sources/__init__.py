"""Sources of images: folders, CIFAR-10, idx files, arrays, and the demo; one module each."""
