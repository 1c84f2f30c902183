-- include _records
if before <= 0 then return 0 end
return trim_records(records, string.format('%.0f', before - 1), most)
