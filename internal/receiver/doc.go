// SPDX-License-Identifier: BSD-3-Clause

// Package receiver takes tracers from strangers.
//
// A datagram passes, from cheap to dear: its size and form; whether its key is
// known, and whether there is a token left for it; whom it is for; when it was
// made; whether that one was here before; the signature; and then what the whole
// message says. What is refused is counted by reason.
//
// Verifying a signature costs some 40 µs on a PC and 15 ms on a small router, so
// it is rationed in three lanes:
//
//   - known: the key has standing in the ledger, and the datagram comes from a
//     network and a distance from where that key's tracers were verified before.
//     It has a bucket of its own, which is more than a sender that keeps to its
//     limits ever needs.
//   - seen: the key is in the ledger, but new, or comes from elsewhere, or late.
//   - new: nobody has heard of the key. There is a bucket for each sending network
//     (/24, /48) and one over all.
//
// What an attacker can do, who may forge any source address:
//
//   - Garbage costs us the reading of it, for which a Socket has a share of the time
//     (on a router a fifth; what comes faster than it can be read in that is dropped by
//     the kernel, good ones too; on a server all of one processor), and at most what the lanes seen and new
//     are allowed. Nothing of it takes from the lane known.
//   - A flood of new keys, or of forgeries with keys that nobody knows, crowds out
//     other new keys: these are heard of later, as they send again.
//   - Forgeries with a known key crowd out that very key, and no other; and only
//     if their source address is in its network and they arrive with the very TTL.
//     From farther away than the owner of the key nobody can do that, as a TTL
//     never grows. From elsewhere they exhaust the tokens for that key in the lane
//     seen, which its owner needs when its address changes, and no more. Who can
//     forge eight known keys or more in this way (on a PC, where a key has 20 tokens
//     a second of thousands: hundreds) fills the lane.
//   - Whoever sends honestly for days has a known key, too, and with it a share of
//     the lane: an eighth at most for each. What he says is still only what he says.
package receiver
