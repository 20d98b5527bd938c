package swarm

// SetMaxOpen changes how many conversations are open at once.
func (s *Service) SetMaxOpen(n int) { s.maxOpen = n }
