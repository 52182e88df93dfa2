"""What has to be so on both sides before and while the publisher runs, judged line by line."""
