"""Drawing images value by value: one traceable loop over all values, sampling, completion."""
