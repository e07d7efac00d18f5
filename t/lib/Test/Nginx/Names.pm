package Test::Nginx::Names;

# A name server whose answers may be changed while it runs.
#
#   $t->write_file('addresses', '127.0.0.1 127.0.0.2');
#   $t->run_daemon(\&name_server, $t->testdir(), port(8053));
#
# Every question for an IPv4 address is answered with those in the file.

use v5.36;

use Exporter qw/import/;
use IO::Socket::IP;
use Socket qw/SOCK_DGRAM/;

our @EXPORT_OK = qw/name_server/;

sub name_server ($dir, $port) {
	my $s = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => $port,
		Proto => 'udp', Type => SOCK_DGRAM) or die "name server: $!\n";

	while (defined $s->recv(my $query, 512)) {
		open my $fh, '<', "$dir/addresses" or die "addresses: $!\n";
		my @addresses = split ' ', <$fh> // '';

		my ($question) = substr($query, 12) =~ /\A((?:[^\0].*?)?\0....)/s;
		my $type = unpack 'n', substr $question, -4, 2;
		@addresses = () unless $type == 1;

		$s->send(substr($query, 0, 2)
			. pack('n*', 0x8180, 1, scalar @addresses, 0, 0) . $question
			. join '', map { pack 'n n n N n C4', 0xc00c, 1, 1, 1, 4,
				split /\./ } @addresses);
	}
}

1;
