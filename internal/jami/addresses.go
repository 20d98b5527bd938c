package jami

import (
	"fmt"
	"net/netip"
)

// User types of encrypted values at a device's [PeerKey] (connect-and-calls §1.1). Stock
// devices listen there for the first alone.
const (
	UserTypePeerRequest = "peer_request"
	UserTypeAddresses   = "parley_addresses"
)

// MaxAddresses bounds the addresses of a device in one value.
const MaxAddresses = 8

// Addresses tells a contact's device under which IP addresses others see the sender's, and
// asks for the same; Answer is the answer to that, with the same ID. It is the data of an
// encrypted value of [UserTypeAddresses], and no part of stock Jami: what OpenDHT has for that, the
// IpServiceAnnouncement (dht-and-identity §1.7), can be read by everybody.
type Addresses struct {
	ID     uint64
	Answer bool
	List   []netip.Addr // at most MaxAddresses
}

// Pack returns a map of id, answer and addrs, each of which is a bin of 4 or 16 bytes.
func (a *Addresses) Pack() ([]byte, error) {
	p := newPacker(32 + 20*len(a.List))
	p.limit("address", len(a.List), MaxAddresses)
	p.mapLen(3)
	p.str("id")
	p.uint(a.ID)
	p.str("answer")
	p.bool(a.Answer)
	p.str("addrs")
	p.keep(p.e.EncodeArrayLen(len(a.List)))
	for _, ip := range a.List {
		if !reachable(ip) {
			p.keep(fmt.Errorf("%w: the address %s", ErrValue, ip))
			break
		}
		p.bin(ip.AsSlice())
	}
	return p.done()
}

// ParseAddresses reads the data of a value. The sender is the value's signer.
func ParseAddresses(b []byte) (*Addresses, error) {
	u := newUnpacker(b)
	a := new(Addresses)
	err := u.each(func(key string) (err error) {
		switch key {
		case "id":
			a.ID, err = u.d.DecodeUint64()
		case "answer":
			a.Answer, err = u.d.DecodeBool()
		case "addrs":
			var n int
			if n, err = u.d.DecodeArrayLen(); err != nil {
				return err
			}
			a.List = nil
			return u.times(n, MaxAddresses, func() error {
				b, err := u.bytes()
				if err != nil {
					return err
				}
				ip, ok := netip.AddrFromSlice(b)
				if ip = ip.Unmap(); !ok || !reachable(ip) {
					return fmt.Errorf("%w: %x is no address", ErrValue, b)
				}
				a.List = append(a.List, ip)
				return nil
			})
		default:
			err = u.skip()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return a, u.end()
}

// reachable reports whether an address is one that a device can have. Its zone stays on its machine.
func reachable(ip netip.Addr) bool {
	return ip.IsValid() && !ip.IsUnspecified() && !ip.IsMulticast() && ip.Zone() == "" && !ip.Is4In6()
}
