"""Where images come from: folders, CIFAR-10, idx files, arrays, the demo."""
