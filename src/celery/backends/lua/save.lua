-- ARGV, of each: key, document, seconds to keep or ''.
for place = 1, #ARGV, 3 do
  store(ARGV[place], ARGV[place + 1], ARGV[place + 2])
end
