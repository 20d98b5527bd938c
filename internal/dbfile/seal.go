package dbfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// SumSize is how many bytes a sum has.
const SumSize = crc32.Size

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the CRC-32C of a record's key and value, big-endian where it is stored.
func Sum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// Seal returns sum 4 | value.
func Seal(key, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, SumSize+len(value)), Sum(key, value)), value...)
}

// Unseal returns a copy of what [Seal] was given, or [ErrDamaged].
func Unseal(key, b []byte) ([]byte, error) {
	if len(b) < SumSize || binary.BigEndian.Uint32(b) != Sum(key, b[SumSize:]) {
		return nil, fmt.Errorf("%w (%.40q)", ErrDamaged, key)
	}
	return bytes.Clone(b[SumSize:]), nil
}
