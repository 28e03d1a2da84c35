# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# route.pl ACTIVE SHARE HOLD    tells the map to the HAProxy that runs on this node, all keys in one step, and reads it back
#
# A job of the Swarm runs it on each node with an edge: the socket is reached from nowhere else. Perl, since Debian's base has it.
# 4 says that no HAProxy took it.
use strict;
use warnings;
use IO::Socket::UNIX;

my $map = "/run/bitnet-edge/routing.map";
my $socket = "/run/bitnet-edge/haproxy.sock";
my @keys = ("active", "share", "hold");
my %want;
@want{@keys} = @ARGV;

sub fail {
    print STDERR "edge: @_\n";
    exit 4;
}

$SIG{ALRM} = sub { fail "HAProxy did not answer at $socket within 10 s" };
alarm 10;

sub ask {
    my ($command) = @_;
    my $edge = IO::Socket::UNIX->new(Peer => $socket) or fail "$socket: $!: no edge runs here";
    print {$edge} "$command\n" or fail "$socket: $!";
    $edge->flush;
    shutdown $edge, 1;
    local $/;
    my $answer = <$edge>;
    return defined $answer ? $answer : "";
}

my ($version) = ask("prepare map $map") =~ /New version created: (\d+)/ or fail "HAProxy did not prepare the map";
my $said = ask(join " ; ", (map { "add map \@$version $map $_ $want{$_}" } @keys), "commit map \@$version $map");
fail "HAProxy did not take the map: $said" if $said =~ /\S/;
my %has = map { (split " ", $_)[1, 2] } grep { /\S+ \S+ \S+/ } split /\n/, ask("show map $map");
for my $key (@keys) {
    fail "HAProxy has $key " . ($has{$key} // "nothing") . " and was told $want{$key}" unless ($has{$key} // "") eq $want{$key};
}
