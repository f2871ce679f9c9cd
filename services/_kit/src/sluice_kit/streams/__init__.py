"""The chassis of stream processors on Faust: exact through rebalances and kill -9. Needs the extra `sluice-kit[streams]`."""
