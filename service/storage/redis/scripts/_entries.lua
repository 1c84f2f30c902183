-- Shared by the scripts that read entries of streams.

-- The values of an entry by their names.
local function fields_of(entry)
  local fields, listed = {}, entry[2]
  for at = 1, #listed, 2 do fields[listed[at]] = listed[at + 1] end
  return fields
end
