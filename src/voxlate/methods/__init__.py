"""What is learned: problems, tasks and the methods that solve them."""
