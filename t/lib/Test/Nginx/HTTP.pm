package Test::Nginx::HTTP;

# A client for single requests.  Every call ends within its timeout.
#
#   http_request(%request)      a Test::Nginx::Response; its status is 0 and
#                               its error is set when no reply came
#   http_get($uri, %request)    the same, for these methods
#   http_head($uri, %request)
#   http_post($uri, $body, %request)
#   get_json($uri, %request)    the decoded body; dies when it is not JSON
#   control($uri, %request)     http_request() with map_ports
#   http($bytes, %request)      sends bytes as they are, returns all bytes
#                               that came back until the server closed, the
#                               time was over, or as many replies were seen as
#                               "replies" says
#
#   http_start(%request)        sends a request and returns a handle when all
#                               of it is sent; dies when it cannot be
#   http_finish($handle, timeout => 10)
#                               its reply, as from http_request()
#                               (a handle that is dropped closes its connection)
#
# %request, all optional:
#   uri => '/', method => 'GET', body => bytes,
#   headers => { Name => value | [values] | undef to leave a default out },
#   host => '127.0.0.1' | '::1', port => 8080 (logical or real),
#   socket => '/path/of/unix/socket' instead of both,
#   version => '1.1', keepalive => 0, timeout => 10 (seconds),
#   map_ports => 0; with 1, logical ports in uri and body are replaced by
#                real ones, and real ones in the reply's body by logical ones
#
#   dial(%request)       a non-blocking socket whose connect is under way, or
#                        undef with $! set
#   format_request(...)  the bytes of a request

use v5.36;

use Errno qw/EINPROGRESS/;
use Exporter qw/import/;
use IO::Handle;
use Socket qw/
	AF_INET AF_INET6 AF_UNIX SOCK_STREAM SOL_SOCKET SO_ERROR IPPROTO_TCP
	TCP_NODELAY inet_pton pack_sockaddr_in pack_sockaddr_in6 pack_sockaddr_un
/;
use Test::More ();

use Test::Nginx::Ports qw/port expand_ports logical_ports/;
use Test::Nginx::Process qw/now/;
use Test::Nginx::Response;

our @EXPORT_OK = qw/
	http_request http_get http_head http_post get_json control http
	http_start http_finish
	dial format_request connect_error
/;

use constant TIMEOUT => 10;

sub http_get ($uri, %request) {
	return http_request(%request, uri => $uri);
}

sub http_head ($uri, %request) {
	return http_request(%request, uri => $uri, method => 'HEAD');
}

sub http_post ($uri, $body, %request) {
	return http_request(
		method => 'POST', %request, uri => $uri, body => $body,
	);
}

sub control ($uri, %request) {
	return http_request(%request, uri => $uri, map_ports => 1);
}

sub get_json ($uri, %request) {
	return http_request(%request, uri => $uri)->json();
}

sub http_request (%request) {
	my $map = delete $request{map_ports};

	if ($map) {
		$_ = expand_ports($_)
			for grep { defined } @request{qw/uri body/};
	}

	my $head = uc($request{method} // 'GET') eq 'HEAD';
	my ($got, $replies) = _exchange(
		format_request(%request), 1, $head, %request,
	);
	my $reply = $replies->[0]
		// Test::Nginx::Response->failed($got->{error}, $got->{bytes});

	$reply->{body} = logical_ports($reply->{body}) if $map;

	return $reply;
}

sub http ($bytes, %request) {
	my $head = $bytes =~ /\AHEAD /;
	my ($got, $replies)
		= _exchange($bytes, $request{replies} // 0, $head, %request);

	return join('', map { $_->raw() } @$replies) . $got->{bytes};
}

sub http_start (%request) {
	my $deadline = now() + ($request{timeout} // TIMEOUT);
	my $out = format_request(%request);
	my $s = dial(%request) // die "connect: $!\n";
	my $connected = 0;

	_log('>', $out);

	while ($out ne '') {
		my $w = '';
		vec($w, fileno $s, 1) = 1;
		select undef, $w, undef, $deadline - now();
		die "request not sent in time\n" if now() >= $deadline;

		my $error = $connected++ ? '' : connect_error($s);
		die "$error\n" if $error ne '';

		my $n = syswrite $s, $out;
		die "write: $!\n" unless defined $n || $!{EAGAIN};
		substr $out, 0, $n // 0, '';
	}

	return { over => $s, request => \%request };
}

sub http_finish ($handle, %opt) {
	my %request = %{ $handle->{request} };
	my $head = uc($request{method} // 'GET') eq 'HEAD';
	my ($got, $replies)
		= _exchange('', 1, $head, %request, %opt, over => $handle->{over});

	return $replies->[0]
		// Test::Nginx::Response->failed($got->{error}, $got->{bytes});
}

sub format_request (%request) {
	my %headers = (Host => 'localhost');
	$headers{Connection} = 'close' unless $request{keepalive};
	$headers{'Content-Length'} = length $request{body}
		if defined $request{body};

	my %given = %{ $request{headers} // {} };

	for my $name (keys %given) {
		delete @headers{ grep { lc $_ eq lc $name } keys %headers };
		$headers{$name} = $given{$name};
	}

	my $head = sprintf "%s %s HTTP/%s\r\n", $request{method} // 'GET',
		$request{uri} // '/', $request{version} // '1.1';

	for my $name (sort keys %headers) {
		my $value = $headers{$name} // next;
		$head .= "$name: $_\r\n" for ref $value ? @$value : $value;
	}

	return $head . "\r\n" . ($request{body} // '');
}

sub dial (%request) {
	my ($family, $address) = _address(%request);

	socket my $s, $family, SOCK_STREAM, 0 or return undef;
	$s->blocking(0);
	setsockopt $s, IPPROTO_TCP, TCP_NODELAY, 1 if $family != AF_UNIX;

	return $s if connect($s, $address) || $! == EINPROGRESS;
	return undef;
}

# '' once the socket is writable and connected, else the reason in words.
sub connect_error ($s) {
	local $! = unpack 'i', getsockopt $s, SOL_SOCKET, SO_ERROR;
	return $! ? "connect: $!" : '';
}

sub _address (%request) {
	return (AF_UNIX, pack_sockaddr_un($request{socket}))
		if defined $request{socket};

	my $port = port($request{port} // 8080);
	my $host = ($request{host} // '127.0.0.1') =~ s/\A\[(.*)\]\z/$1/r;
	$host = '127.0.0.1' if $host eq 'localhost';

	# The harness talks to this machine only.
	die "\"$host\" is not a loopback address\n"
		unless $host =~ /\A127\.[\d.]+\z/ || $host eq '::1';

	return $host eq '::1'
		? (AF_INET6, pack_sockaddr_in6($port, inet_pton(AF_INET6, $host)))
		: (AF_INET, pack_sockaddr_in($port, inet_pton(AF_INET, $host)));
}

# Sends the bytes and reads replies: as many as wanted, or, with 0, until the
# server closes.  Returns what is left over (bytes, error) and the replies.
sub _exchange ($out, $wanted, $head, %request) {
	my $deadline = now() + ($request{timeout} // TIMEOUT);
	my %left = (bytes => '', error => '');
	my @replies;

	_log('>', $out) if $out ne '';

	my $s = $request{over} // dial(%request);
	if (!$s) {
		$left{error} = "connect: $!";
		_log('!', $left{error});
		return \%left, \@replies;
	}

	my $connected = !!$request{over};

	while (1) {
		my $eof = 0;
		my $rest = $deadline - now();

		if ($rest <= 0) {
			$left{error} = 'timed out';
			last;
		}

		my ($r, $w) = ('', '');
		vec($r, fileno $s, 1) = 1 if $connected;
		vec($w, fileno $s, 1) = 1 if $out ne '' || !$connected;
		select($r, $w, undef, $rest) > 0 or next;

		if (!$connected) {
			last if ($left{error} = connect_error($s)) ne '';
			$connected = 1;
		}

		# A server may answer and close before it took the whole request:
		# a failed write must not hide its answer.
		if ($out ne '' && vec($w, fileno $s, 1)) {
			my $n = syswrite $s, $out;
			$out = defined $n ? substr($out, $n) : $!{EAGAIN} ? $out : '';
		}

		if (vec($r, fileno $s, 1)) {
			my $n = sysread $s, $left{bytes}, 65_536, length $left{bytes};
			next if !defined $n && ($!{EAGAIN} || $!{EINTR});
			$left{error} = "read: $!" if !defined $n;
			$eof = 1 unless $n;
		}

		while ($wanted && @replies < $wanted) {
			my $reply = eval {
				Test::Nginx::Response->parse(
					\$left{bytes}, head => $head, eof => $eof,
				);
			};
			if ($@) {
				$left{error} = $@ =~ s/\n\z//r;
				$eof = 1;
			}
			push @replies, $reply // last;
		}

		last if $wanted && @replies >= $wanted;

		if ($eof) {
			$left{error} ||= $left{bytes} eq ''
				? 'closed without a reply' : 'closed inside a reply'
				if $wanted;
			last;
		}
	}

	close $s;
	_log('<', $_->raw()) for @replies;
	_log('<', $left{bytes}) if $left{bytes} ne '';
	_log('!', $left{error}) if $left{error} ne '';

	return \%left, \@replies;
}

sub _log ($mark, $text) {
	return unless $ENV{TEST_NGINX_VERBOSE};

	Test::More::note(join "\n",
		map { "$mark $_" } split /\r?\n/, substr($text, 0, 4000));
}

1;
