-- ARGV[1]: seconds to keep, or ''; then key and document of each.
for place = 2, #ARGV, 2 do
  store(ARGV[place], ARGV[place + 1], ARGV[1])
end
