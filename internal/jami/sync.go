package jami

import (
	"fmt"
	"maps"
	"slices"
)

// Bounds of what devices of an account tell one another.
const (
	// MaxSyncRequests is how many trust requests go into one DeviceSync (§3.9).
	MaxSyncRequests = 20
	// MaxSync bounds a [SyncMsg] in bytes; a DeviceSync in the DHT has [MaxValue].
	MaxSync = 4 << 20

	maxSyncDevices       = 1000
	maxSyncPeers         = 10_000
	maxSyncConversations = 10_000
)

// DeviceSync is what a device tells the account's others: the data of an encrypted
// value of [TypeData] at their [InboxKey], and the first part of a [SyncMsg] (§3.9).
type DeviceSync struct {
	// Date grows from one to the next of a device, in ticks of its clock: nanoseconds
	// since 1970 on Linux. Receivers take a newer one than the last alone.
	Date       uint64
	DeviceName string // empty
	Legacy     map[ID]string
	Devices    map[LongID]SyncDevice
	Peers      map[ID]Contact
	Requests   map[ID]PendingRequest // by who asks; at most MaxSyncRequests, without payload
}

// SyncDevice is a device of the account as another one knows it.
type SyncDevice struct {
	Name  string
	Short ID // zero: newer versions leave it out
}

// PendingRequest is a trust request that nobody answered (§4).
type PendingRequest struct {
	Device         []byte // DER key of the device that asks, or nil
	ConversationID string
	Received       int64  // unix seconds
	Payload        []byte // vCard, at most MaxPayload bytes
}

// Pack returns the map as stock writes it, sorted. The error is [ErrValue], with
// [ErrTooMany] where a list is too long.
func (s *DeviceSync) Pack() ([]byte, error) {
	p := newPacker(128 + 160*(len(s.Devices)+len(s.Peers)+len(s.Requests)))
	p.deviceSync(s)
	return p.done()
}

func (p *packer) deviceSync(s *DeviceSync) {
	p.limit("devices", len(s.Devices), maxSyncDevices)
	p.limit("devices", len(s.Legacy), maxSyncDevices)
	p.limit("contacts", len(s.Peers), maxSyncPeers)
	p.limit("trust requests", len(s.Requests), MaxSyncRequests)
	p.mapLen(6)
	p.str("date")
	p.uint(s.Date)
	p.str("device_name")
	p.str(s.DeviceName)
	p.str("devices_known")
	p.mapLen(len(s.Legacy))
	for _, id := range sortedIDs(s.Legacy) {
		p.bin(id[:])
		p.str(s.Legacy[id])
	}
	p.str("devices")
	p.mapLen(len(s.Devices))
	for _, id := range slices.SortedFunc(maps.Keys(s.Devices), compareLong) {
		d := s.Devices[id]
		p.bin(id[:])
		p.mapLen(2)
		p.str("name")
		p.str(d.Name)
		p.str("sha1")
		p.bin(d.Short[:])
	}
	p.str("peers")
	p.contacts(s.Peers)
	p.str("trust_requests")
	p.requests(s.Requests)
}

// ParseDeviceSync reads the data of a value. That its sender is a device of the account
// is to be checked before it is believed.
func ParseDeviceSync(b []byte) (*DeviceSync, error) {
	if len(b) > MaxValue {
		return nil, fmt.Errorf("%w: %w: %d bytes of a device's state", ErrValue, ErrTooLarge, len(b))
	}
	u := newUnpacker(b)
	s := new(DeviceSync)
	if err := u.deviceSync(s); err != nil {
		return nil, err
	}
	return s, u.end()
}

func (u *unpacker) deviceSync(s *DeviceSync) error {
	return u.each(func(key string) (err error) {
		switch key {
		case "date":
			s.Date, err = u.d.DecodeUint64()
		case "device_name":
			s.DeviceName, err = u.str(maxName)
		case "devices_known":
			s.Legacy, err = u.legacyDevices()
		case "devices":
			s.Devices, err = u.syncDevices()
		case "peers":
			s.Peers, err = u.contacts(maxSyncPeers)
		case "trust_requests":
			s.Requests, err = u.requests(MaxSyncRequests)
		default:
			err = u.skip()
		}
		return err
	})
}

func (u *unpacker) legacyDevices() (map[ID]string, error) {
	var m map[ID]string
	return m, u.entries(maxSyncDevices, func() error {
		var id ID
		err := u.id(&id)
		if err != nil {
			return err
		}
		if m == nil {
			m = map[ID]string{}
		}
		m[id], err = u.str(maxName)
		return err
	})
}

func (u *unpacker) syncDevices() (map[LongID]SyncDevice, error) {
	var m map[LongID]SyncDevice
	return m, u.entries(maxSyncDevices, func() error {
		var id LongID
		if err := u.longID(&id); err != nil {
			return err
		}
		var d SyncDevice
		err := u.each(func(key string) (err error) {
			switch key {
			case "name":
				d.Name, err = u.str(maxName)
			case "sha1":
				err = u.id(&d.Short)
			default:
				err = u.skip()
			}
			return err
		})
		if m == nil {
			m = map[LongID]SyncDevice{}
		}
		m[id] = d
		return err
	})
}

func (p *packer) requests(m map[ID]PendingRequest) {
	p.mapLen(len(m))
	for _, id := range sortedIDs(m) {
		r := m[id]
		p.keep(checkRequest(r.ConversationID, r.Payload))
		p.bin(id[:])
		p.mapLen(4)
		p.str("device")
		if r.Device == nil {
			p.keep(p.e.EncodeNil())
		} else {
			p.bin(r.Device)
		}
		p.str("conversationId")
		p.str(r.ConversationID)
		p.str("received")
		p.int(r.Received)
		p.str("payload")
		p.bin(r.Payload)
	}
}

func (u *unpacker) requests(limit int) (map[ID]PendingRequest, error) {
	var m map[ID]PendingRequest
	return m, u.entries(limit, func() error {
		var id ID
		if err := u.id(&id); err != nil {
			return err
		}
		var r PendingRequest
		err := u.each(func(key string) (err error) {
			switch key {
			case "device":
				if r.Device, err = u.bytesOrNil(); err == nil && r.Device != nil {
					r.Device, err = derKey(r.Device)
				}
			case "conversationId":
				r.ConversationID, err = u.str(maxConversation)
			case "received":
				r.Received, err = u.seconds()
			case "payload":
				r.Payload, err = u.bytesOrNil()
			default:
				err = u.skip()
			}
			return err
		})
		if err == nil {
			err = checkRequest(r.ConversationID, r.Payload)
		}
		if m == nil {
			m = map[ID]PendingRequest{}
		}
		m[id] = r
		return err
	})
}

func (p *packer) contacts(m map[ID]Contact) {
	p.mapLen(len(m))
	for _, id := range sortedIDs(m) {
		c := m[id]
		p.keep(checkText("conversation id", c.ConversationID, maxConversation))
		p.bin(id[:])
		p.mapLen(5)
		p.str("added")
		p.int(c.Added)
		p.str("removed")
		p.int(c.Removed)
		p.str("confirmed")
		p.bool(c.Confirmed)
		p.str("banned")
		p.bool(c.Banned)
		p.str("conversationId")
		p.str(c.ConversationID)
	}
}

func (u *unpacker) contacts(limit int) (map[ID]Contact, error) {
	var m map[ID]Contact
	return m, u.entries(limit, func() error {
		var id ID
		if err := u.id(&id); err != nil {
			return err
		}
		var c Contact
		err := u.each(func(key string) (err error) {
			switch key {
			case "added":
				c.Added, err = u.seconds()
			case "removed":
				c.Removed, err = u.seconds()
			case "confirmed":
				c.Confirmed, err = u.d.DecodeBool()
			case "banned":
				c.Banned, err = u.d.DecodeBool()
			case "conversationId":
				c.ConversationID, err = u.str(maxConversation)
			default:
				err = u.skip()
			}
			return err
		})
		if m == nil {
			m = map[ID]Contact{}
		}
		m[id] = c
		return err
	})
}
