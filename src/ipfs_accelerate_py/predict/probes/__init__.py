"""What a device can do at most, measured in at most a minute, through the engines that models run on."""
