-- Renew a lease for long where nobody holds anything: then nobody can die with it.
-- ARGV: unacked index, due index, lease, holders, holder, long lease in ms. Returns how many holders there are; 0 if
-- somebody, real Celery's workers included, holds something that is not merely parked.
if redis.call('ZCARD', ARGV[1]) > redis.call('ZCARD', ARGV[2]) then return 0 end
if redis.call('PEXPIRE', ARGV[3], ARGV[6]) == 0 then return 0 end
redis.call('SADD', ARGV[4], ARGV[5])
return redis.call('SCARD', ARGV[4])
