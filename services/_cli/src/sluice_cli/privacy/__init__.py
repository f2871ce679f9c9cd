"""`sluice privacy`: erase a person, show what keys there are, give a person what is kept of them."""
