-- ARGV: records and arrivals. Returns id and body of each barrier that is full now.
local found = {}
further(1, true, found)
return found
