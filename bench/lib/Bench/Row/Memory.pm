package Bench::Row::Memory;

# Shared memory of a server, with the module and without, the smallest zones that
# do for ten servers, a thousand, and ten thousand, and what of the module's own
# zone is in use then.

use v5.36;

use Test::Nginx;

use Bench::Pairs qw/summary/;

use constant PAGE => 4096;

# Numbers of servers whose zones are looked for.
my @SIZES = (10, 1_000, 10_000);

# What a server takes is the difference of these, by a thousand.
use constant { FEW => 10, MORE => 1_010 };

# A zone has at least so many pages, and surely fits into so many for a server.
use constant { LEAST => 8, MOST => 0.5 };

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

%%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080;
        location = /control { %%CONTROL%% }
        location = /status { %%STATUS%% }
    }
}
CONF

sub run ($class, $session) {
	my $repeat = '`bench/run.pl memory`';
	my $room = 'with room to add one more';
	my @rows = ({
		name => 'shared memory of a server', unit => 'bytes', digits => 0,
		how => 'used pages of the zone (`zone_memory` of the status) of a '
			. 'round robin upstream of ' . MORE . ' servers less those for '
			. FEW . ', by the difference / the same with '
			. '`upstream_dynamic off;`, where the zone holds what nginx itself '
			. "puts there. $repeat",
	}, {
		name => "the same in the module's zone", unit => 'bytes',
		digits => 0, how => 'what the module keeps beside it: the difference '
			. 'of the memory below for ' . $SIZES[-1] . ' and '
			. "$SIZES[-2] servers, by that of these / the same bytes of nginx",
	});
	for my $servers (@SIZES) {
		push @rows, {
			name => "smallest zone, $servers servers", unit => 'KiB',
			digits => 0, how => 'found by bisection over starts of nginx, in '
				. "pages of 4 KiB: $room / without the module and such room",
		}, {
			name => "memory of the module's zone, $servers servers",
			unit => 'KiB', digits => 0, how => 'resident pages of the zone, '
				. 'whose size follows the configuration (`Rss` of its mapping '
				. 'in the smaps of the master) / the zone of the row above',
		};
	}
	return map { +{ %$_, missing => 'needs the module' } } @rows
		if $session->null();

	my $server = _per_server($session);
	my (@ratios, @stores);
	for my $servers (@SIZES) {
		my $stock = _smallest($servers, sub ($pages) {
			_starts($session, 0, $servers, $pages);
		});
		my $zone = _smallest($servers, sub ($pages) {
			_starts($session, 1, $servers, $pages);
		});
		my $store = _resident($session, $servers, $zone);

		push @stores, $store;
		push @ratios, _ratio(map { $_ * PAGE / 1024 } $zone, $stock),
			_ratio($store, $zone * PAGE / 1024);
	}

	unshift @ratios, $server, _ratio(
		($stores[-1] - $stores[-2]) * 1024 / ($SIZES[-1] - $SIZES[-2]),
		$server->{other},
	);

	return map { +{ $rows[$_]->%*, ratio => $ratios[$_] } } 0 .. $#rows;
}

sub _ratio ($one, $other) {
	return { summary($one / $other)->%*, one => $one, other => $other };
}

sub _per_server ($session) {
	my %servers = (few => FEW, more => MORE);
	my $upstreams = '';
	for my $name (sort keys %servers) {
		my $pages = _most($servers{$name});
		$upstreams .= _upstream("${name}_on", $servers{$name}, $pages)
			. _upstream("${name}_off", $servers{$name}, $pages,
				'upstream_dynamic off;');
	}

	my $nginx = _nginx($session, 1, UPSTREAMS => $upstreams);
	$session->start($nginx);
	my $all = get_json('/status?format=json')->{upstreams};
	$session->stop($nginx);

	my %used = map {
		my $pages = $all->{$_}{zone_memory}{pages};
		$_ => $pages->{total} - $pages->{free};
	} keys %$all;
	die "the module does not control what is measured\n"
		if grep { !$all->{"${_}_on"}{dynamic} } keys %servers;

	return _ratio(map {
		($used{"more_$_"} - $used{"few_$_"}) * PAGE / (MORE - FEW)
	} qw/on off/);
}

# Pages, for which $does is true, while one less is refused.
sub _smallest ($servers, $does) {
	my ($bad, $good) = (LEAST - 1, _most($servers));
	die "$good pages are too few for $servers servers\n" unless $does->($good);

	while ($good - $bad > 1) {
		my $middle = int(($bad + $good) / 2);
		$does->($middle) ? ($good = $middle) : ($bad = $middle);
	}

	return $good;
}

sub _most ($servers) { return 32 + int(MOST * $servers) }

# True if nginx starts with zones of so many pages and, with the module, takes
# one more server.
sub _starts ($session, $with, $servers, $zone) {
	my $nginx = _nginx(
		$session, $with, UPSTREAMS => _upstream('u', $servers, $zone),
	);

	if (!eval { $nginx->run(); 1 }) {
		my $error = $@;
		return 0 if $error =~ /no memory/;
		die $error;
	}

	my $reply = $with
		? control('/control?upstream=u&add=&brief=&server=127.1.1.1:9') : undef;
	$nginx->stop();
	return 1 unless $with;

	return 1 if $reply->status() == 200;
	# Memory is short, or the upstream is static for want of it.
	return 0 if $reply->status() == 500
		|| ($reply->status() == 501 && $nginx->grep_log(qr/no memory left/));

	die 'a server was refused: ', $reply->body(), "\n";
}

# KiB of the module's zone that are in memory: of the shared mapping whose size
# is a power of two and at least 16m, which no other zone here is.
sub _resident ($session, $servers, $zone) {
	my $nginx = _nginx($session, 1, UPSTREAMS => _upstream('u', $servers, $zone));
	$nginx->run();

	open my $fh, '<', '/proc/' . $nginx->pid() . '/smaps' or die "smaps: $!\n";
	my ($shared, $size, @found);
	while (<$fh>) {
		$shared = $1 eq 's' if /\A[0-9a-f]+-[0-9a-f]+ ...([sp]) /;
		$size = $1 if /\ASize: +(\d+) kB/;
		push @found, $1 if /\ARss: +(\d+) kB/ && $shared && $size >= 16_384
			&& !($size & $size - 1);
	}
	close $fh or die "smaps: $!\n";
	$nginx->stop();
	die "the module's zone is not found\n" if @found != 1;

	return $found[0];
}

sub _nginx ($session, $with, %holes) {
	return $session->nginx(
		module => $with, conf => $CONF, log_level => 'warn', holes => {
			CONTROL => $with ? 'upstream_control;' : 'return 204;',
			STATUS => $with ? 'upstream_status;' : 'return 204;', %holes,
		},
	);
}

# Nobody listens there, since nobody asks.
sub _upstream ($name, $servers, $pages, $more = '') {
	return join "\n", "upstream $name { zone $name " . $pages * PAGE . "; $more",
		(map { sprintf 'server 10.0.%d.%d:80;', $_ / 250, $_ % 250 }
			0 .. $servers - 1), "}\n";
}

1;
