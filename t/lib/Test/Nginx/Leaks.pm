package Test::Nginx::Leaks;

# The leak keys: what the module's status must show once nothing is under way.
#
#   Test::Nginx::Leaks->new(uri => '/upstreamstatus', port => 8080, %allow)
#       %allow: zombies => N          peers that may wait for their last user
#               pages => { NAME => N } slab pages that the upstream NAME may
#                                      use more (or, below 0, less) than at the
#                                      baseline
#               seconds => 5           to wait for them
#               host, socket, headers  as for http_request()
#   ->baseline          notes the slab pages in use now; dies when the status
#                       does not answer
#   ->problems          waits until there are none; returns what is left, in
#                       words
#
# For each upstream of "?verbose=&format=json" that is dynamic: no active
# connection, no reference, no zombie, nginx's totals equal both to what the
# module counted in nginx's lists and to what its status lists, and nothing in
# these lists that the module takes for a fault.

use v5.36;

use Test::Nginx::HTTP qw/get_json/;
use Test::Nginx::Process qw/wait_until/;

# total in nginx's lists, key that the module counted for it
my @COUNTED = (
	[ number => 'counted' ],
	[ total_weight => 'counted_weight' ],
	[ tries => 'counted_usable' ],
);

# States for which "down": false and nginx's own flag agree.
my %PLAIN = map { $_ => 1 } qw/up down unavail/;

sub new ($class, %how) {
	return bless {
		zombies => 0, pages => {}, seconds => 5, %how, base => {},
	}, $class;
}

sub baseline ($self) {
	my $all = $self->_status();

	$self->{base} = {
		map { $_ => _used($all->{$_}) }
			grep { defined _used($all->{$_}) } keys %$all,
	};
}

sub problems ($self) {
	my @problems;

	wait_until(sub {
		@problems = eval { $self->_check() };
		@problems = ("no leak keys: $@" =~ s/\s+\z//r) if $@;
		return !@problems;
	}, $self->{seconds});

	return @problems;
}

sub _status ($self) {
	my $join = $self->{uri} =~ /\?/ ? '&' : '?';
	my $data = get_json("$self->{uri}${join}verbose=&format=json",
		map { defined $self->{$_} ? ($_ => $self->{$_}) : () }
			qw/host port socket headers/);

	die "the status has no \"upstreams\"\n"
		unless ref $data eq 'HASH' && ref $data->{upstreams} eq 'HASH';

	return $data->{upstreams};
}

sub _used ($upstream) {
	my $pages = ($upstream->{zone_memory} // {})->{pages} // return undef;
	return $pages->{total} - $pages->{free};
}

sub _check ($self) {
	my $all = $self->_status();
	my @dynamic = grep { $all->{$_}{dynamic} } sort keys %$all;

	# A check of nothing must not look like a check that held.
	return 'the status shows no dynamic upstream' unless @dynamic;

	return map { $self->_check_upstream($_, $all->{$_}) } @dynamic;
}

sub _check_upstream ($self, $name, $upstream) {
	my $leaks = $upstream->{leaks};
	return "\"$name\" has no leak keys" unless ref $leaks eq 'HASH';

	my @problems = _faults($leaks);

	for my $backup (0, 1) {
		my $group = $backup ? 'backup' : 'primary';
		my @peers = grep { !!$_->{backup} == !!$backup }
			@{ $upstream->{peers} };
		my $totals = $leaks->{$group};

		if (!$totals) {
			push @problems, "$group: peers, but no totals" if @peers;
			next;
		}

		push @problems, map { "$group: $_" }
			$self->_check_group($totals, @peers);
	}

	my $used = _used($upstream);
	my $base = $self->{base}{$name};

	if (defined $used && defined $base) {
		my $more = $used - $base;
		my $may = $self->{pages}{$name} // 0;
		push @problems, "uses $used slab pages, $base at the baseline"
			if $may >= 0 ? $more < 0 || $more > $may
			: $more > 0 || $more < $may;
	}

	return map { "\"$name\" $_" } @problems;
}

sub _faults ($leaks) {
	my $faults = $leaks->{faults};
	return 'has no list of faults' unless ref $faults eq 'ARRAY';
	return @$faults ? "faults are @$faults" : ();
}

sub _check_group ($self, $totals, @peers) {
	my @problems;

	for my $row (@COUNTED) {
		my ($total, $counted) = @$row;
		push @problems, _differ($total, $totals->{$total}, $counted,
			$totals->{$counted});
	}

	my $active = 0;
	$active += $_->{active} // 0 for @peers;

	push @problems, "active is $active" if $active;
	push @problems, "$_ is $totals->{$_}"
		for grep { $totals->{$_} } qw/conns refs/;
	push @problems, "zombies is $totals->{zombies}"
		if ($totals->{zombies} // 0) > $self->{zombies};

	# Behind an empty group stands a placeholder that the status hides.
	return @problems if !@peers && ($totals->{number} // 0) <= 1;

	my $weight = 0;
	$weight += $_->{weight} for @peers;

	push @problems,
		_differ('number', $totals->{number}, 'peers shown', scalar @peers),
		_differ('total_weight', $totals->{total_weight}, 'weights shown',
			$weight);

	return @problems if grep { !$PLAIN{ $_->{state} // 'up' } } @peers;

	return @problems, _differ('tries', $totals->{tries}, 'peers shown not down',
		scalar grep { !$_->{down} } @peers);
}

sub _differ ($name, $value, $other, $reference) {
	return "has no $name" unless defined $value;
	return "has no $other" unless defined $reference;
	return () if $value == $reference;
	return "$name is $value, but $other $reference";
}

1;
